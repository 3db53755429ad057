import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { MAX_MESSAGE_BYTES, MessageLink } from './message-link.js';

const turns = async () => {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
};

/** Two links, what each has heard, and the streams between them. */
function linked(onMessage: (message: unknown) => void = () => undefined) {
  const [there, back] = [new PassThrough(), new PassThrough()];
  const heard: unknown[] = [];
  const answers: unknown[] = [];
  const ends = { near: 0, far: 0 };
  const far = new MessageLink(
    { input: there, output: back },
    {
      onMessage: (message) => {
        heard.push(message);
        onMessage(message);
      },
      onEnd: () => (ends.far += 1),
    },
  );
  const near = new MessageLink(
    { input: back, output: there },
    { onMessage: (message) => void answers.push(message), onEnd: () => (ends.near += 1) },
  );
  return { near, far, heard, answers, ends, there, back };
}

describe('a link of messages', () => {
  it('brings values both ways, however they are cut', async () => {
    const { near, far, heard, answers, there } = linked();
    const long = { text: 'ä\n'.repeat(10_000) };
    near.send({ a: 1 });
    far.send([true]);
    for (const byte of Buffer.from(`${JSON.stringify(long)}\n{"b":2}\n7`)) there.write(Uint8Array.of(byte));
    await turns();
    expect(heard).toEqual([{ a: 1 }, long, { b: 2 }]);
    there.write('7\n');
    await turns();
    expect(heard.at(-1)).toBe(77);
    expect(answers).toEqual([[true]]);
  });

  it('reads no more where nobody takes what it answers, if it is the end that holds back', async () => {
    const [there, back] = [new PassThrough(), new PassThrough({ highWaterMark: 100 })];
    const heard: unknown[] = [];
    const link: MessageLink = new MessageLink(
      { input: there, output: back },
      {
        holdsBack: true,
        onEnd: () => undefined,
        onMessage: (message) => {
          heard.push(message);
          link.send('x'.repeat(40));
        },
      },
    );
    for (let message = 0; message < 10; message++) {
      there.write(`${message}\n`);
      await turns();
    }
    expect(heard.length).toBeLessThan(10);
    expect(back.writableLength + back.readableLength).toBeLessThan(500);
    back.resume();
    await expect.poll(() => heard).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it.each([
    ['no JSON', 'x\n'],
    ['an empty line', '\n'],
    ['a line that is too long', 'x'.repeat(MAX_MESSAGE_BYTES + 1)],
  ])('is over for both ends with %s', async (_what, text) => {
    const { near, far, heard, ends, there } = linked();
    there.write(text);
    there.write('{"late":1}\n');
    await turns();
    expect([near.isOver, far.isOver, ends, heard]).toEqual([true, true, { near: 1, far: 1 }, []]);
    near.send({ late: 2 });
    near.end();
    expect(ends).toEqual({ near: 1, far: 1 });
  });

  it('is over with a message that its handler refuses; those behind it are not read', async () => {
    const { ends, heard, there } = linked(() => {
      throw new TypeError('no');
    });
    there.write('1\n2\n');
    await turns();
    expect([heard, ends]).toEqual([[1], { near: 1, far: 1 }]);
  });

  it.each(['near', 'far'] as const)('is over for both when the %s end ends it', async (who) => {
    const both = linked();
    both[who].end();
    await turns();
    expect(both.ends).toEqual({ near: 1, far: 1 });
  });

  it('is over with a channel that breaks, or that had gone before', async () => {
    const broken = linked();
    broken.there.destroy(new Error('gone'));
    await turns();
    expect(broken.far.isOver).toBe(true);
    const input = new PassThrough();
    input.destroy();
    await turns();
    let ends = 0;
    new MessageLink({ input, output: new PassThrough() }, { onMessage: () => undefined, onEnd: () => (ends += 1) });
    await turns();
    expect(ends).toBe(1);
  });

  it('takes no message that the other end would not', () => {
    expect(() => linked().near.send('x'.repeat(MAX_MESSAGE_BYTES))).toThrow(RangeError);
  });
});
