/* SPDX-License-Identifier: MIT */
/* The sentence that aph_hold_error() gives. */
#ifndef ANTIPHON_HOLD_ERROR_H
#define ANTIPHON_HOLD_ERROR_H

/* Keeps the sentence for this thread and returns `r`. */
int hold_complain(int r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with what libantiphon has to say about its own last failure. */
int hold_complain_aph(int r);

#endif
