// SPDX-License-Identifier: MIT
/*
 * Cap'n Proto RPC: two-party over a unix socket, one thread at either end.
 */
#include <capnp/ez-rpc.h>
#include <kj/exception.h>

#include <deque>
#include <string>

#include "capnproto.capnp.h"
#include "harness.h"

namespace
{

capnp::ReaderOptions reader_options()
{
	capnp::ReaderOptions options;

	options.traversalLimitInWords = UINT64_MAX;
	return options;
}

std::string url(const bench_job *job)
{
	return std::string("unix:") + job->address;
}

template <typename Body> uint64_t sum_of(const Body &body)
{
	if (body.hasBody())
		return bench_sum(body.getBody().begin(), body.getBody().size());
	return body.getValue();
}

template <typename Body> void fill(Body body, const void *data, size_t len)
{
	if (len > sizeof(uint32_t))
		body.setBody(kj::arrayPtr(static_cast<const uint8_t *>(data), len));
	else
		body.setValue(*static_cast<const uint32_t *>(data));
}

class Service final : public Bench::Server
{
      public:
	explicit Service(const bench_job *job) : job(job)
	{
	}

	kj::Promise<void> call(CallContext context) override
	{
		uint32_t small;
		size_t len;
		const void *data = bench_answer(job, sum_of(context.getParams()), &small, &len);

		context.releaseParams();
		fill(context.getResults(), data, len);
		return kj::READY_NOW;
	}

      private:
	const bench_job *job;
};

int serve(bench_job *job)
{
	capnp::EzRpcServer server(kj::heap<Service>(job), url(job), 0, reader_options());

	server.getPort().wait(server.getWaitScope());
	bench_ready(job);
	kj::NEVER_DONE.wait(server.getWaitScope());
}

struct Client {
	explicit Client(const bench_job *job)
		: rpc(url(job), 0, reader_options()), bench(rpc.getMain<Bench>())
	{
	}

	capnp::EzRpcClient rpc;
	Bench::Client bench;
	std::deque<capnp::RemotePromise<Bench::CallResults>> pending;
};

int open_client(bench_job *job, void **self)
{
	*self = new Client(job);
	return 0;
}

capnp::RemotePromise<Bench::CallResults> send(Client *client, const void *req, size_t len)
{
	auto request = client->bench.callRequest();

	fill<Bench::CallParams::Builder>(request, req, len);
	return request.send();
}

int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	auto client = static_cast<Client *>(self);

	try {
		auto response = send(client, req, len).wait(client->rpc.getWaitScope());

		*sum = sum_of(response);
		return 0;
	} catch (const kj::Exception &) {
		return -1;
	}
}

int submit(void *self, uint32_t value)
{
	auto client = static_cast<Client *>(self);

	client->pending.push_back(send(client, &value, sizeof value));
	return 0;
}

int collect(void *self, uint64_t *sum)
{
	auto client = static_cast<Client *>(self);
	auto response = client->pending.front().wait(client->rpc.getWaitScope());

	client->pending.pop_front();
	*sum = sum_of(response);
	return 0;
}

} // namespace

int main(int argc, char **argv)
{
	bench_who who = {};

	who.name = "capnproto";
	who.death = true;
	who.serve = serve;
	who.open = open_client;
	who.call = call;
	who.submit = submit;
	who.collect = collect;
	return bench_main(&who, 1, argc, argv);
}
