/** Debian's qemu-ga in a stock guest, over the port of a machine of `run --qemu-agent`: exec, cp, and a clone that is spoken to anew. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { debianPrograms, QEMU_GUEST_AGENT } from '../../lib/images/debian-programs.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { onTerminal, vivarium } from '../lib/command.js';

const NAME = `qemu-agent-${process.pid}`;
const CLONE = `${NAME}-clone`;
const folder = mkdtempSync(join(tmpdir(), 'vivarium-qemu-agent-'));

async function agentOf(name: string): Promise<unknown> {
  const { stdout } = await vivarium(['inspect', '--json', name]);
  return (JSON.parse(stdout.toString()) as { agent?: unknown }).agent;
}

async function shell(name: string, words: string): Promise<string> {
  const { status, stdout, stderr } = await vivarium(['exec', '-n', '--wait', '120', name, '--', 'sh', '-c', words]);
  expect(status, stderr).toBe(0);
  return stdout.toString().trim();
}

beforeAll(async () => {
  const kernel = await defaultKernel();
  const parts = [await defaultInitramfs({ kernel }), await debianPrograms(QEMU_GUEST_AGENT)];
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, Buffer.concat(parts.map((part) => readFileSync(part))));
  const images = ['--kernel', kernel.path, '--initrd', initrd];
  const { status, stderr } = await vivarium(['run', '-d', '--name', NAME, '--qemu-agent', ...images]);
  expect(status, stderr).toBe(0);
  // As udev's rules and systemd's unit have it.
  const console = onTerminal(['console', NAME]);
  await console.until(/vivarium:~#/);
  console.type(
    'mkdir /dev/virtio-ports; cd /sys/class/virtio-ports; for port in *; do ln -s /dev/$port /dev/virtio-ports/$(cat $port/name); ' +
      'done; cd /; qemu-ga -d -t /run; echo started-$((40+2))\r',
  );
  await console.until(/started-42/);
  console.type('\x1d');
  await console.ended;
});
afterAll(async () => {
  for (const name of [NAME, CLONE]) await vivarium(['kill', name]);
  rmSync(folder, { recursive: true });
});

it("runs commands with what QEMU's agent can do", async () => {
  const script = 'pwd; echo $A >&2; cat; exit 7';
  const told = await vivarium(['exec', '--wait', '120', '-e', 'A=b', '-w', '/tmp', NAME, '--', 'sh', '-c', script], {
    stdin: 'from here\n',
  });
  expect(told).toMatchObject({ status: 7, stderr: 'b\n' });
  expect(told.stdout.toString()).toBe('/tmp\nfrom here\n');
  expect(await agentOf(NAME)).toEqual({ kind: 'qemu', version: expect.stringMatching(/^\d+\.\d+/) as string });
  expect((await vivarium(['exec', '-n', NAME, '--', 'no-such-command'])).status).toBe(127);
  expect((await vivarium(['exec', '-n', '--timeout', '1', NAME, '--', 'sleep', '100'])).status).toBe(124);
  expect(await shell(NAME, 'pidof sleep || echo none')).toBe('none');
  const refused = await vivarium(['exec', '-t', NAME, '--', 'sh'], { stdin: '' });
  expect(refused.status).toBe(125);
  expect(refused.stderr).toContain("QEMU's agent gives a command no terminal");
});

it('takes files in and gives them out', async () => {
  const [from, to] = [join(folder, 'from'), join(folder, 'to')];
  const data = randomBytes(500_000);
  writeFileSync(from, data);
  expect(await vivarium(['cp', '--quiet', from, `${NAME}:/tmp/file`])).toMatchObject({ status: 0, stderr: '' });
  expect(await vivarium(['cp', '--quiet', `${NAME}:/tmp/file`, to])).toMatchObject({ status: 0, stderr: '' });
  expect(readFileSync(to).equals(data)).toBe(true);
});

it('is spoken to anew in a clone, whose clock it sets, while the first one goes on', async () => {
  await shell(NAME, 'echo before > /tmp/mark');
  const saved = join(folder, 'saved');
  const done = await vivarium(['snapshot', '--live', NAME, saved]);
  expect(done.status, done.stderr).toBe(0);
  await shell(NAME, 'echo after > /tmp/mark');
  const restored = await vivarium(['restore', '-d', '--name', CLONE, saved]);
  expect(restored.status, restored.stderr).toBe(0);
  expect(await shell(CLONE, 'cat /tmp/mark')).toBe('before');
  expect(await shell(NAME, 'cat /tmp/mark')).toBe('after');
  expect(await agentOf(CLONE)).toMatchObject({ kind: 'qemu' });
  const seconds = async (name: string): Promise<number> => Number(await shell(name, 'date +%s'));
  await expect
    .poll(async () => Math.abs((await seconds(CLONE)) - Date.now() / 1000), { timeout: 60_000 })
    .toBeLessThan(5);
});

it('ends by stop', async () => {
  expect((await vivarium(['stop', NAME])).status).toBe(0);
});
