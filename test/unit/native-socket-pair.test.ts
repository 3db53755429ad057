/** The native pair of sockets: bytes both ways, and room for much that nobody has read yet. */
import { once } from 'node:events';
import { closeSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { MiB } from '../../lib/base/units.js';
import { sendDescriptors, socketPair } from '../../lib/kvm/index.js';

it('takes from the other end more than a socket does, while nobody reads', async () => {
  const wmemMaxBytes = Number(readFileSync('/proc/sys/net/core/wmem_max', 'utf8'));
  // A user without privileges gets twice that limit, in an account that has the kernel's costs in it.
  const bytes = process.getuid?.() === 0 ? 2 * MiB : Math.min(2 * MiB, wmemMaxBytes);
  const { own, other } = socketPair(8 * MiB);
  const sender = new Socket({ fd: other, readable: true, writable: true });
  onTestFinished(() => void sender.destroy());
  await new Promise((resolve) => sender.write(new Uint8Array(bytes), resolve));
  const receiver = new Socket({ fd: own, readable: true, writable: true });
  let gotBytes = 0;
  receiver.on('data', (chunk: Uint8Array) => (gotBytes += chunk.length));
  receiver.write('back');
  expect(String((await once(sender, 'data'))[0])).toBe('back');
  sender.end();
  await once(receiver, 'close');
  expect(gotBytes).toBe(bytes);
});

it('is one at an end each, which whoever took it closes', async () => {
  const { own, other } = socketPair(MiB);
  closeSync(other);
  const left = new Socket({ fd: own, readable: true, writable: true });
  await once(left.resume(), 'end');
  expect(() => socketPair(-1)).toThrow(RangeError);
  expect(() => socketPair(1.5)).toThrow(RangeError);
});

it('takes messages with descriptors, and says why not', async () => {
  const { own, other } = socketPair(MiB);
  const receiver = new Socket({ fd: other, readable: true, writable: true });
  const descriptors = socketPair(MiB);
  onTestFinished(() => [own, descriptors.own].forEach((fd) => closeSync(fd)));
  sendDescriptors(own, Buffer.from('one'), [descriptors.other]);
  closeSync(descriptors.other);
  expect(String((await once(receiver, 'data'))[0])).toBe('one');
  const errno = (send: () => void): unknown => {
    try {
      return send();
    } catch (error) {
      return (error as { errno: string }).errno;
    }
  };
  expect(errno(() => sendDescriptors(own, Buffer.from('x'), [2 ** 30]))).toBe('EBADF');
  expect(errno(() => sendDescriptors(2 ** 30, Buffer.from('x'), []))).toBe('EBADF');
  expect(() => sendDescriptors(own, Buffer.from('x'), Array(17).fill(own) as number[])).toThrow(RangeError);
  receiver.destroy();
  await once(receiver, 'close');
  expect(errno(() => sendDescriptors(own, Buffer.from('x'), []))).toBe('EPIPE');
});
