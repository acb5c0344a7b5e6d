// An otto-handler in Node, as they are written: grpc-js, and our .proto files loaded at run time.
//
// One JSON object per line: commands come on stdin, what happens goes to stdout.
//   {"id": 1, "rpc": "ScaleUp", "request": {...}, "deadline": 5000}   → {"id": 1, "answer": {...}}, or {"id": 1, "error": {...}}
//   {"id": 2, "rpc": "ExecutePipeline", "request": {...}}             → {"id": 2, "news": {...}} ..., {"id": 2, "end": true}
//   {"id": 3, "rpc": "Check", "request": {...}}                       → the same for Check and Watch of grpc.health.v1
//   {"id": 4, "rpc": "ServerReflectionInfo", "request": [{...}]}      → the same with all requests of a stream, for each of its names:
//                                                                       "rpc": "ServerReflectionInfo.v1alpha"
//   {"id": 2, "cancel": true}                                         → cancels a call
//   {"hammer": [{"rpc": "ScaleUp", "request": {...}}]}                 → each again and again, "#" in it being a number
//   {"rest": true}                                                    → {"hammered": [12], "errors": []} when all are answered
//   {"serve": true}                                                   → {"port": 12345}, then {"entry": {...}}, {"status": {...}}
//                                                                       and {"registered": {...}}
//   {"answers": {"retry": 3}}                                         → every third entry is answered RETRY from now on
'use strict';

const path = require('path');
const readline = require('readline');
const modules = process.argv[2];
const root = process.argv[3];
const grpc = require(path.join(modules, '@grpc/grpc-js'));
const loader = require(path.join(modules, '@grpc/proto-loader'));
const protobuf = require(path.join(modules, 'protobufjs'));

const files = ['scaling', 'pipeline', 'worker_logs', 'log_streaming'].map((name) => `ottoscaler/rpc/v1/${name}.proto`);
const options = { keepCase: true, longs: String, enums: String, defaults: true, includeDirs: [root] };
const { v1 } = grpc.loadPackageDefinition(loader.loadSync(files, options)).ottoscaler;

// google.rpc.Status and BadRequest, which is how an error names the field that is wrong
const details = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Violation { string field = 1; string description = 2; }
  message BadRequest { repeated Violation field_violations = 1; }
`, { keepCase: true }).root;

// what every gRPC server may serve beside its own: grpc.health.v1, and reflection under its two names
const load = (text) => loader.fromJSON(protobuf.parse(text, { keepCase: true }).root.toJSON(), options);
const { Health } = grpc.loadPackageDefinition(load(`
  syntax = "proto3";
  package grpc.health.v1;
  message HealthCheckRequest { string service = 1; }
  message HealthCheckResponse {
    enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
    ServingStatus status = 1;
  }
  service Health {
    rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
    rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
  }
`)).grpc.health.v1;
const reflection = (version) => grpc.loadPackageDefinition(load(`
  syntax = "proto3";
  package grpc.reflection.${version};
  message ServerReflectionRequest { oneof message_request { string file_containing_symbol = 4; string list_services = 7; } }
  message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
  message ListServiceResponse { repeated ServiceResponse service = 1; }
  message ServiceResponse { string name = 1; }
  message ServerReflectionResponse {
    FileDescriptorResponse file_descriptor_response = 4;
    ListServiceResponse list_services_response = 6;
  }
  service ServerReflection { rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse); }
`)).grpc.reflection[version].ServerReflection;

const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const calls = new Map();
const answers = { retry: 0 };
let client = null;
let others = {};
let entries = 0;
let hammering = false;

function errorOf(error) {
  const found = { code: grpc.status[error.code], message: error.details, violations: [] };
  for (const buffer of (error.metadata && error.metadata.get('grpc-status-details-bin')) || []) {
    for (const detail of details.lookupType('Status').decode(buffer).details) {
      if (detail.type_url.endsWith('/google.rpc.BadRequest')) {
        found.violations.push(...details.lookupType('BadRequest').decode(detail.value).field_violations);
      }
    }
  }
  return found;
}

function call({ id, rpc, request, deadline }) {
  const limits = deadline ? { deadline: Date.now() + deadline } : {};
  const [name, version] = rpc.split('.');
  const at = others[rpc] || client;
  if (['ExecutePipeline', 'Watch', 'ServerReflectionInfo'].includes(name)) {
    const stream = version ? at[name](limits) : at[name](request, limits);
    if (version) {
      request.forEach((each) => stream.write(each));
      stream.end();
    }
    calls.set(id, stream);
    stream.on('data', (news) => tell({ id, news }));
    stream.on('error', (error) => tell({ id, error: errorOf(error) }));
    stream.on('end', () => tell({ id, end: true }));
    return;
  }
  const unary = at[name](request, new grpc.Metadata(), limits, (error, answer) =>
    tell(error ? { id, error: errorOf(error) } : { id, answer }));
  calls.set(id, unary);
}

// every call of `rounds` without pause, the next when the one before has ended, until told to rest
function hammer(rounds) {
  hammering = true;
  const hammered = rounds.map(() => 0);
  const errors = [];
  let busy = rounds.length;
  rounds.forEach(({ rpc, request }, round) => {
    const next = () => {
      if (!hammering) {
        busy -= 1;
        if (!busy) tell({ hammered, errors });
        return;
      }
      const numbered = JSON.parse(JSON.stringify(request).replaceAll('#', hammered[round]));
      client[rpc](numbered, new grpc.Metadata(), { deadline: Date.now() + 20000 }, (error) => {
        hammered[round] += 1;
        if (error) errors.push({ rpc, ...errorOf(error) });
        setImmediate(next);
      });
    };
    next();
  });
}

function take(stream) {
  stream.on('data', (entry) => {
    entries += 1;
    const status = answers.retry && entries % answers.retry === 0 ? 'RETRY' : 'ACK';
    tell({ entry, status });
    stream.write({ status, sequence: entries });
  });
  stream.on('end', () => stream.end());
  stream.on('error', () => {});
}

function serve() {
  const server = new grpc.Server();
  server.addService(v1.OttoHandlerLogService.service, {
    ForwardWorkerLogs: take,
    NotifyWorkerStatus({ request }, answer) {
      tell({ status: request });
      answer(null, { status: 'RECEIVED' });
    },
  });
  server.addService(v1.LogStreamingService.service, {
    StreamLogs: take,
    RegisterWorker({ request }, answer) {
      tell({ registered: request });
      answer(null, { status: 'SUCCESS', session_id: 's-1', config: { max_message_size: 8, include_metadata: true } });
    },
  });
  server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => tell({ port, error }));
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line);
  if (command.connect) {
    const plain = grpc.credentials.createInsecure();
    client = new v1.OttoscalerService(command.connect, plain);
    const health = new Health(command.connect, plain);
    others = { Check: health, Watch: health };
    ['v1', 'v1alpha'].forEach((version) => {
      others[`ServerReflectionInfo.${version}`] = new (reflection(version))(command.connect, plain);
    });
    tell({ connected: command.connect });
  } else if (command.serve) {
    serve();
  } else if (command.answers) {
    Object.assign(answers, command.answers);
  } else if (command.hammer) {
    hammer(command.hammer);
  } else if (command.rest) {
    hammering = false;
  } else if (command.cancel) {
    calls.get(command.id).cancel();
  } else {
    call(command);
  }
}).on('close', () => process.exit(0));
