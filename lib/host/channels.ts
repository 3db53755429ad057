/**
 * The channels of a session: byte streams both ways beside stdin, stdout and stderr, each with a window of its own as
 * theirs are. Both ends have the same; what goes over one is its users' business.
 */
import type { Channel } from '../base/command-io.js';
import { creditOf, FIRST_CHANNEL, FRAME_CREDIT, FRAME_DATA, FRAME_END, MAX_CHANNELS, type Frame } from './frames.js';
import { FrameReadable, FrameWritable } from './streams.js';

/**
 * Less than for a command's own streams: packets that wait too long are sent again by those who think that they are lost,
 * and the same bytes go over the link many times.
 */
const CHANNEL_WINDOW_BYTES = 192 * 1024;

export class Channels {
  readonly all: readonly Channel[];
  readonly #ends: readonly { readonly input: FrameReadable; readonly output: FrameWritable }[];

  /** @throws RangeError for more than frames have numbers for. */
  constructor(count: number, session: number, send: (frame: Frame) => void) {
    if (count > MAX_CHANNELS) throw new RangeError(`${count} channels of a session, of at most ${MAX_CHANNELS}`);
    this.#ends = Array.from({ length: count }, (_, index) => {
      const options = { session, stream: FIRST_CHANNEL + index, send, windowBytes: CHANNEL_WINDOW_BYTES };
      const [input, output] = [new FrameReadable(options), new FrameWritable(options)];
      // A session that ends breaks them in the middle, which whoever ended it knows.
      for (const stream of [input, output]) stream.on('error', () => undefined);
      return { input, output };
    });
    this.all = this.#ends;
  }

  /** Whether the frame was a channel's; one that this session does not have swallows it. */
  onFrame(frame: Frame): boolean {
    if (frame.stream < FIRST_CHANNEL) return false;
    const end = this.#ends[frame.stream - FIRST_CHANNEL];
    if (frame.type === FRAME_DATA) end?.input.deliver(frame.payload);
    else if (frame.type === FRAME_END) end?.input.deliverEnd();
    else if (frame.type === FRAME_CREDIT) end?.output.grant(creditOf(frame));
    return true;
  }

  /** The session is over. */
  destroy(): void {
    for (const { input, output } of this.#ends) {
      input.destroy();
      output.destroy();
    }
  }
}
