/**
 * Disks through the command, with a stock kernel's own virtio_blk: what the host put there the guest reads, what the
 * guest writes is there when the command has ended, on raw images and on qcow2.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { vivarium } from '../lib/command.js';

const MiB = 1024 * 1024;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function run(args: readonly string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const { status, stdout, stderr } = await vivarium(['run', ...args]);
  return { status, stdout: stdout.toString(), stderr };
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'vivarium-disk-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

describe('vivarium run --disk', () => {
  it('lends raw images, read-only ones too, and keeps what is written', async () => {
    const place = folder();
    const [root, base] = [join(place, 'root.img'), join(place, 'base,with comma.img')];
    const content = randomBytes(2 * MiB);
    writeFileSync(root, content);
    writeFileSync(base, randomBytes(MiB));
    const before = sha256(readFileSync(base));
    const script = [
      'cat /sys/block/vda/size /sys/block/vda/serial; echo; cat /sys/block/vdb/ro',
      'sha256sum < /dev/vda',
      'echo written by the guest | dd of=/dev/vda bs=512 seek=7 conv=notrunc,fsync 2>/dev/null',
      'dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null && echo the read-only disk was written',
      'exit 7',
    ].join('\n');
    const result = await run(['--disk', `${root},id=data`, '--disk', `${base},ro`, '--', 'sh', '-c', script]);
    expect(result.stderr).not.toContain('the read-only disk was written');
    expect(result.stdout).toBe(`4096\ndata\n1\n${sha256(content)}  -\n`);
    expect(result.status).toBe(7);
    const expected = Buffer.from(content);
    expected.set(Buffer.from('written by the guest\n'), 7 * 512);
    expect(sha256(readFileSync(root))).toBe(sha256(expected));
    expect(sha256(readFileSync(base))).toBe(before);
  });

  it('lends a qcow2 overlay over a base that stays as it is', async () => {
    const place = folder();
    const [base, overlay] = [join(place, 'base.img'), join(place, 'work.qcow2')];
    const content = randomBytes(MiB);
    writeFileSync(base, content);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', overlay]);
    const script = [
      'sha256sum < /dev/vda',
      'dd if=/dev/zero of=/dev/vda bs=4096 seek=3 count=2 conv=notrunc,fsync 2>/dev/null',
    ].join('\n');
    const result = await run(['--disk', overlay, '--', 'sh', '-c', script]);
    expect(result).toMatchObject({ status: 0, stdout: `${sha256(content)}  -\n` });
    expect(sha256(readFileSync(base))).toBe(sha256(content));
    execFileSync('qemu-img', ['check', '-q', overlay]);
    const flat = join(place, 'flat.img');
    execFileSync('qemu-img', ['convert', '-O', 'raw', overlay, flat]);
    expect(sha256(readFileSync(flat))).toBe(sha256(Buffer.from(content).fill(0, 3 * 4096, 5 * 4096)));
  });

  it('names what is wrong with an image before anything is started', async () => {
    const result = await run(['--disk', join(folder(), 'missing.img'), '--', 'true']);
    expect(result.status).toBe(125);
    expect(result.stderr).toMatch(/--disk .*missing\.img: there is no such file/);
  });
});
