import { describe, expect, it } from 'vitest';
import { MachineConsole } from './console.js';

const bytes = (text: string) => new TextEncoder().encode(text);

async function readAll(console: MachineConsole): Promise<string> {
  let text = '';
  for await (const chunk of console.output) text += new TextDecoder().decode(chunk);
  return text;
}

describe('MachineConsole', () => {
  it('gives every reader everything, from the start, until the machine ends', async () => {
    const console = new MachineConsole(() => true);
    console.receive(bytes('one '));
    const first = readAll(console);
    console.receive(bytes('two '));
    const second = readAll(console);
    await Promise.resolve();
    console.receive(bytes('three'));
    console.end();
    expect(await first).toBe('one two three');
    expect(await second).toBe('one two three');
    expect(await readAll(console)).toBe('one two three');
  });

  it('types text as UTF-8', () => {
    const typed: Uint8Array[] = [];
    const console = new MachineConsole((data) => typed.push(data) > 0);
    console.write('ä\n');
    console.write(new Uint8Array([0, 255]));
    expect(typed.map((data) => [...data])).toEqual([
      [0xc3, 0xa4, 0x0a],
      [0, 255],
    ]);
  });

  it('finds a text that is there, one that comes, and one that comes in pieces', async () => {
    const console = new MachineConsole(() => true);
    console.receive(bytes('boot\n'));
    expect((await console.waitFor(/boot/)).index).toBe(0);
    const login = console.waitFor(/(\w+) login:/);
    console.receive(bytes('debian lo'));
    console.receive(bytes('gin: '));
    expect((await login)[1]).toBe('debian');
  });

  it('finds a text after more output than it keeps in view', async () => {
    const console = new MachineConsole(() => true);
    const found = console.waitFor(/needle/);
    const hay = bytes('x'.repeat(100_000));
    for (let round = 0; round < 40; round++) console.receive(hay);
    console.receive(bytes('nee'));
    console.receive(bytes('dle'));
    await expect(found).resolves.toBeDefined();
    expect(console.text.length).toBeLessThanOrEqual(2 * 1024 * 1024);
  });

  it('says why waiting was in vain', async () => {
    const console = new MachineConsole(() => true);
    console.receive(bytes('last words\n'));
    await expect(console.waitFor(/never/, { timeoutMs: 1 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: expect.stringContaining('last words') as string,
    });
    await expect(console.waitFor(/never/, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    const late = console.waitFor(/never/);
    console.end();
    await expect(late).rejects.toMatchObject({ code: 'ERR_STATE' });
  });

  it('tells a writer to wait until the guest has taken its input, or has ended', async () => {
    const console = new MachineConsole(() => false);
    expect(console.write('a')).toBe(false);
    let drained = 0;
    const first = console.drained().then(() => drained++);
    await Promise.resolve();
    expect(drained).toBe(0);
    console.inputDrained();
    await first;
    expect(console.write('b')).toBe(false);
    const second = console.drained();
    console.end();
    await second;
    expect(console.write('c')).toBe(true);
  });

  it('holds the guest while a reader is behind, and lets it go when it has caught up', async () => {
    const held: boolean[] = [];
    const console = new MachineConsole(
      () => true,
      (holding) => held.push(holding),
    );
    const reader = console.output[Symbol.asyncIterator]();
    const first = reader.next();
    console.receive(new Uint8Array(2 * 1024 * 1024));
    console.receive(new Uint8Array(2 * 1024 * 1024));
    await first;
    expect(held).toEqual([true, false]);
    console.receive(new Uint8Array(2 * 1024 * 1024));
    await reader.return?.();
    expect(held.at(-1)).toBe(false);
  });
});
