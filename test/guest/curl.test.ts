/** curl of Debian in a stock guest, over passt: out to this machine, and in by a forward. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { CURL, debianPrograms } from '../../lib/images/debian-programs.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { freePort } from '../../lib/vsp/net/testing-far.js';
import { start } from '../lib/command.js';

async function images() {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-programs-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const kernel = await defaultKernel();
  const [initrd, tools] = [await defaultInitramfs({ kernel }), await debianPrograms(CURL)];
  return { initrd, tools, folder };
}

describe('run --nic passt', () => {
  it('lets curl reach a server of this machine, and through a forward the guest itself', async () => {
    const { initrd, tools, folder } = await images();
    const content = randomBytes(300_000);
    const server = createServer((_request, response) => response.end(content)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const forward = await freePort('127.0.0.1');
    const both = join(folder, 'initrd');
    writeFileSync(both, Buffer.concat([initrd, tools].map((path) => readFileSync(path))));
    const run = start(['run', '--initrd', both, '--memory', '192M', '--nic', 'passt', '-p', `${forward}:80`]);
    run.type(`stty -echo; PS1=; until ip route | grep -q ^default; do usleep 50000; done
      curl -sS -o /tmp/got http://10.0.2.2:${port}/; sha256sum < /tmp/got
      httpd -p 80 -h /tmp; curl -sS http://10.0.2.2:${forward}/got | sha256sum; poweroff\n`);
    const { status, stdout, stderr } = await run.ended;
    const sums = [...stdout.toString('latin1').matchAll(/^([0-9a-f]{64}) {2}-/gm)].map((match) => match[1]);
    const sum = createHash('sha256').update(content).digest('hex');
    expect(sums, `${stdout.toString()}${stderr}`).toEqual([sum, sum]);
    expect(status).toBe(0);
  });
});
