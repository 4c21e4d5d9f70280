// SPDX-License-Identifier: MIT
/*
 * gRPC over a unix socket: the synchronous server and stub, and the completion queue of the client
 * where several calls are in flight.
 */
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "grpc.grpc.pb.h"
#include "harness.h"

namespace
{

std::string url(const bench_job *job)
{
	return std::string("unix:") + job->address;
}

uint64_t sum_of(const bench::Body &body)
{
	if (!body.body().empty())
		return bench_sum(body.body().data(), body.body().size());
	return body.value();
}

void fill(bench::Body *body, const void *data, size_t len)
{
	if (len > sizeof(uint32_t))
		body->set_body(data, len);
	else
		body->set_value(*static_cast<const uint32_t *>(data));
}

class Service final : public bench::Bench::Service
{
      public:
	explicit Service(const bench_job *job) : job(job)
	{
	}

	grpc::Status Call(grpc::ServerContext *, const bench::Body *request,
			  bench::Body *reply) override
	{
		uint32_t small;
		size_t len;
		const void *data = bench_answer(job, sum_of(*request), &small, &len);

		fill(reply, data, len);
		return grpc::Status::OK;
	}

      private:
	const bench_job *job;
};

int serve(bench_job *job)
{
	Service service(job);
	grpc::ServerBuilder builder;

	builder.AddListeningPort(url(job), grpc::InsecureServerCredentials());
	builder.RegisterService(&service);
	builder.SetMaxReceiveMessageSize(-1);
	auto server = builder.BuildAndStart();
	if (!server)
		return -1;
	bench_ready(job);
	server->Wait();
	return -1;
}

/* A call of the asynchronous client. */
struct Pending {
	grpc::ClientContext context;
	grpc::Status status;
	bench::Body reply;
	std::unique_ptr<grpc::ClientAsyncResponseReader<bench::Body>> reader;
};

struct Client {
	std::unique_ptr<bench::Bench::Stub> stub;
	grpc::CompletionQueue queue;
	bench::Body request, reply;
};

int open_client(bench_job *job, void **self)
{
	auto client = new Client;
	grpc::ChannelArguments arguments;

	arguments.SetMaxReceiveMessageSize(-1);
	client->stub = bench::Bench::NewStub(
		grpc::CreateCustomChannel(url(job), grpc::InsecureChannelCredentials(), arguments));
	*self = client;
	return 0;
}

int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	auto client = static_cast<Client *>(self);
	grpc::ClientContext context;

	fill(&client->request, req, len);
	if (!client->stub->Call(&context, client->request, &client->reply).ok())
		return -1;
	*sum = sum_of(client->reply);
	return 0;
}

int submit(void *self, uint32_t value)
{
	auto client = static_cast<Client *>(self);
	auto pending = new Pending;

	client->request.set_value(value);
	pending->reader =
		client->stub->AsyncCall(&pending->context, client->request, &client->queue);
	pending->reader->Finish(&pending->reply, &pending->status, pending);
	return 0;
}

int collect(void *self, uint64_t *sum)
{
	auto client = static_cast<Client *>(self);
	void *tag;
	bool ok;

	if (!client->queue.Next(&tag, &ok))
		return -1;
	std::unique_ptr<Pending> pending(static_cast<Pending *>(tag));
	if (!ok || !pending->status.ok())
		return -1;
	*sum = sum_of(pending->reply);
	return 0;
}

} // namespace

int main(int argc, char **argv)
{
	bench_who who = {};

	who.name = "grpc";
	who.death = true;
	who.serve = serve;
	who.open = open_client;
	who.call = call;
	who.submit = submit;
	who.collect = collect;
	return bench_main(&who, 1, argc, argv);
}
