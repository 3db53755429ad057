/**
 * Steps of an emulated request, one after another: the next one starts when the last one has ended well. A loop as long
 * as steps end at once, so that a thousand of them on a backend in memory do not fill the stack.
 */
import type { BlockDone, BlockError } from '../contract.js';

/** Starts step `index`; answers false when there is none, and then does not call `done`. */
export type SequenceStep = (index: number, done: BlockDone) => boolean;

/** Runs steps 0, 1, 2, ... until there is none, or one fails; then `done`. */
export function inSequence(step: SequenceStep, done: BlockDone): void {
  let index = 0;
  let looping = false;
  let ended = true;
  const onStep = (error: BlockError | undefined): void => {
    if (error !== undefined) {
      // The loop, if it stands above this call, sees `ended` false and leaves.
      done(error);
      return;
    }
    ended = true;
    if (!looping) run();
  };
  const run = (): void => {
    looping = true;
    while (ended) {
      ended = false;
      if (!step(index++, onStep)) {
        done(undefined);
        return;
      }
    }
    looping = false;
  };
  run();
}
