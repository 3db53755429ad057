// A process with a network open, which is killed in the middle: the child of test/unit/network-life.test.ts.
// Arguments: 'passt', or 'switch' and the folder where its processes meet. Its one line of output is the description.
import { hostClock } from '#lib/base/clock.js';
import { silentLogger } from '#lib/base/logger.js';
import { networkSwitch } from '#lib/vsp/net/network-switch-shared.js';
import { passt } from '#lib/vsp/net/passt.js';

const [, , kind, folder] = process.argv;
const source = kind === 'passt' ? passt() : networkSwitch('lan', { folder });
const backend = await source.open({ id: 'net0', mac: 0x020000000077, logger: silentLogger, clock: hostClock });
backend.start({ receive: () => {}, writable: () => {}, link: () => {} });
console.log(JSON.stringify(backend.describe()));
if (kind === 'switch') {
  // Says who it is again and again, so that others know the way to it.
  const bytes = new Uint8Array(60).fill(255, 0, 6);
  bytes.set([2, 0, 0, 0, 0, 0x77], 6);
  setInterval(() => backend.send([{ bytes }]), 5);
}
// A network alone keeps no process alive.
setInterval(() => {}, 2 ** 31 - 1);
