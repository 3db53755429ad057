/**
 * A process of the control program that holds one machine, as `vivarium run -d` does: its guest sleeps, and its control socket is in the
 * folder given. Beside it, on a socket `plain`, stands what it is measured against: node's own HTTP server with one answer. Says
 * `ready` on standard output and ends with its standard input.
 */
import { createServer } from 'node:http';
import path from 'node:path';
import { Machine, serveMachine } from '#lib/index.js';
import { lockFile } from '#lib/memory/index.js';
import { GUEST_ADDRESS, MARK_PORT, sleeper } from './guests.js';
import { Marks } from './marks.js';

const [name = '', folder = ''] = process.argv.slice(2);

const marks = new Marks();
const machine = await Machine.create({
  name,
  memory: '1MiB',
  boot: { flat: sleeper, address: GUEST_ADDRESS, mode: 'real16' },
  portDevices: [{ firstPort: MARK_PORT, portCount: 1, device: marks }],
});
const served = await serveMachine(machine, { place: { folder, lock: lockFile } });
await machine.start();
await marks.reached(1);
const plain = createServer((_request, response) => {
  response.setHeader('content-type', 'application/json; charset=utf-8');
  response.end(JSON.stringify({ name, state: machine.state, pid: process.pid }));
});
await new Promise<void>((resolve) => plain.listen(path.join(folder, name, 'plain'), resolve));
process.stdout.write('ready\n');

process.stdin.resume();
await new Promise((resolve) => process.stdin.once('end', resolve));
plain.close();
await served.close();
await machine.close();
