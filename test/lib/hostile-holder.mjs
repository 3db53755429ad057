// Plays a guest that owns the process of a machine on passt, and asks the keeper for what it should not have: the child of
// test/unit/passt-keeper.test.ts, started by vivarium-fence. It makes the requests on its stdin (JSON, see Request there) one
// after the other; its last line of output is, as JSON, what each was told, or the error's name.
import { closeSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { json } from 'node:stream/consumers';
import { sendDescriptors, socketPair } from '#lib/kvm/index.js';

const keeper = Number(process.env.VIVARIUM_PASST_KEEPER);
const KiB = 1024;
const outcomes = [];
for (const { args, text, descriptors = 'both', then = 'wait' } of await json(process.stdin)) {
  const [frames, words] = [socketPair(KiB), socketPair(64 * KiB)];
  const file = openSync('/dev/null', 'r+');
  const sent = {
    both: [frames.other, words.other],
    none: [],
    one: [words.other],
    three: [frames.other, words.other, file],
    fileForFrames: [file, words.other],
    fileForWords: [frames.other, file],
    ownEnd: [keeper, words.other],
  }[descriptors];
  let failure;
  try {
    sendDescriptors(keeper, Buffer.from(text ?? args.map((each) => `${each}\0`).join(''), 'latin1'), sent);
  } catch (error) {
    failure = error.errno;
  }
  for (const fd of [frames.other, words.other, file]) closeSync(fd);
  outcomes.push(
    failure ?? (await told(frames.own, new Socket({ fd: words.own, readable: true, writable: true }), then)),
  );
}
console.log(JSON.stringify(outcomes));
// Of those that run the words are not closed.
process.exit(0);

/** Until there is no more; with 'leave' no longer than the first words. */
async function told(frames, stderr, then) {
  let said = '';
  await new Promise((resolve) => {
    stderr.on('close', resolve).on('data', (bytes) => {
      said += bytes;
      if (then === 'leave') resolve();
      if (then === 'endFrames') closeSync(frames);
      if (then === 'endWords') stderr.end();
      then = 'wait';
    });
  });
  return said;
}
