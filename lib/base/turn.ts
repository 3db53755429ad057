/**
 * What a device puts off to the end of the turn: completions that belong together are told together. A promise's
 * reaction does it, and not queueMicrotask, which makes an AsyncResource, binds it and enters and leaves its context for
 * each callback: as much as a queue's own work for a request.
 */

const settled = Promise.resolve();

/**
 * Runs `callback` as a microtask: when the code that is running has returned, before anything else of the event loop.
 * One that throws is a bug of ours, and an uncaught exception.
 */
export function atEndOfTurn(callback: () => void): void {
  void settled.then(() => {
    try {
      callback();
    } catch (error) {
      // Not as a rejection, which others hear of.
      queueMicrotask(() => {
        throw error;
      });
    }
  });
}
