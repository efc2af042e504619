// An open loop of k6 over gRPC: ${RATE} images per second for ${SECONDS} seconds, whatever has been answered.
import { check } from "k6";
import encoding from "k6/encoding";
import exec from "k6/execution";
import grpc from "k6/net/grpc";

const count = Number(__ENV.IMAGES);
const images = Array.from({ length: count }, (_, number) => encoding.b64encode(open(`${__ENV.FOLDER}/${number}.png`, "b")));
const client = new grpc.Client();
client.load([__ENV.PROTOS, __ENV.GOOGLEAPIS], "dl4all/diagnosis/v1/diagnosis.proto");

export const options = {
  scenarios: {
    images: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE),
      timeUnit: "1s",
      duration: `${__ENV.SECONDS}s`,
      preAllocatedVUs: 16,
    },
  },
};

let connected = false;

export default () => {
  if (!connected) {
    client.connect(__ENV.ADDRESS, { plaintext: true, maxReceiveSize: 25165824, maxSendSize: 25165824 });
    connected = true;
  }
  const number = exec.scenario.iterationInTest % count;
  const answer = client.invoke("dl4all.diagnosis.v1.DiagnosisService/Diagnose", {
    image: images[number],
    display: { neighbours: 3, includeMaps: true },
  });
  check(answer, { answered: (r) => r.status === grpc.StatusOK });
};
