# SPDX-License-Identifier: MIT
@0xb2c1f0a7d84e3961;

interface Bench {
	call @0 (value :UInt32, body :Data) -> (value :UInt32, body :Data);
}
