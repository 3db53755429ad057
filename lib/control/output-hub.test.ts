import { describe, expect, it } from 'vitest';
import { OutputHub, type OutputView } from './output-hub.js';

const bytes = (text: string): Uint8Array => Buffer.from(text);

async function all(view: OutputView): Promise<{ text: string; lostBytes: number }> {
  let text = '';
  let lostBytes = 0;
  for await (const piece of view) {
    text += Buffer.from(piece.bytes).toString();
    lostBytes += piece.lostBytes;
  }
  return { text, lostBytes };
}

describe('OutputHub', () => {
  it('shows each viewer what was kept and what comes, until the end', async () => {
    const hub = new OutputHub();
    hub.push(bytes('one '));
    const [first, second] = [all(hub.view()), all(hub.view({ tailBytes: 2 }))];
    expect(hub.viewers).toBe(2);
    hub.push(bytes('two'));
    hub.end();
    expect(await first).toEqual({ text: 'one two', lostBytes: 0 });
    expect(await second).toEqual({ text: 'e two', lostBytes: 0 });
    expect(hub.viewers).toBe(0);
    expect(await all(hub.view())).toEqual({ text: 'one two', lostBytes: 0 });
  });

  it('ends a view that does not follow with what is kept', async () => {
    const hub = new OutputHub();
    hub.push(bytes('abc'));
    const view = hub.view({ follow: false });
    hub.push(bytes('def'));
    expect(await all(view)).toEqual({ text: 'abc', lostBytes: 0 });
  });

  it('begins with the last lines, wherever its pieces are cut', async () => {
    const hub = new OutputHub();
    for (const piece of ['one\ntw', 'o\n', '\nthr', 'ee\n']) hub.push(bytes(piece));
    hub.end();
    const tail = async (tailLines: number): Promise<string> => (await all(hub.view({ tailLines }))).text;
    const tails = ['', 'three\n', '\nthree\n', 'two\n\nthree\n', 'one\ntwo\n\nthree\n', 'one\ntwo\n\nthree\n'];
    expect(await Promise.all([0, 1, 2, 3, 4, 5].map(tail))).toEqual(tails);
    expect((await all(hub.view({ tailLines: 3, tailBytes: 8 }))).text).toBe('\n\nthree\n');
  });

  it('counts a line that has not ended', async () => {
    const hub = new OutputHub();
    hub.push(bytes('one\ntwo\nthr'));
    hub.end();
    expect((await all(hub.view({ tailLines: 2 }))).text).toBe('two\nthr');
  });

  it('lets a slow viewer lose the oldest, tells it how much and where, and holds nobody', async () => {
    const hub = new OutputHub({ viewerBytes: 8 });
    const slow = hub.view();
    const fast = hub.view();
    const seen: string[] = [];
    for (const text of ['aaaa', 'bbbb', 'cccc', 'dddd']) {
      hub.push(bytes(text));
      seen.push(Buffer.from((await fast.next()).value!.bytes).toString());
    }
    expect(seen).toEqual(['aaaa', 'bbbb', 'cccc', 'dddd']);
    expect((await slow.next()).value).toMatchObject({ lostBytes: 8 });
    hub.push(bytes('ee'));
    hub.end();
    expect(await all(slow)).toEqual({ text: 'ddddee', lostBytes: 0 });
  });

  it('counts what is lost behind pieces that are taken already with the next ones', async () => {
    const hub = new OutputHub({ viewerBytes: 128 * 1024 });
    const view = hub.view();
    hub.push(new Uint8Array(128 * 1024).fill(1));
    const first = await view.next();
    hub.push(new Uint8Array(128 * 1024).fill(2));
    hub.push(new Uint8Array(10).fill(3));
    hub.end();
    const losses = [first.value!.lostBytes];
    for await (const piece of view) losses.push(piece.lostBytes);
    expect(losses).toEqual([0, 0, 10, 0, 0]);
  });

  it('keeps no more than it is to', async () => {
    const hub = new OutputHub({ keepBytes: 4 });
    for (let at = 0; at < 100; at++) hub.push(bytes(String(at % 10)));
    const { text } = await all(hub.view({ follow: false }));
    expect(text).toBe('6789');
  });

  it('lets go of a viewer that leaves while it waits', async () => {
    const hub = new OutputHub();
    const view = hub.view();
    const next = view.next();
    await view.return();
    expect(hub.viewers).toBe(0);
    expect(await next).toEqual({ done: true, value: undefined });
  });

  it('gives pieces of at most 64 KiB', async () => {
    const hub = new OutputHub();
    hub.push(new Uint8Array(200_000));
    hub.end();
    const sizes: number[] = [];
    for await (const piece of hub.view()) sizes.push(piece.bytes.length);
    expect(sizes).toEqual([65536, 65536, 65536, 3392]);
  });
});
