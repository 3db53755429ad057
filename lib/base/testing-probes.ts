/** For tests of probes: what a channel says while something goes on, and that nothing is said to nobody. */
import { subscribe, unsubscribe, type Channel } from 'node:diagnostics_channel';

/** The messages of the channel during `work`, which may be asynchronous. */
export async function probed<T>({ name }: Channel, work: () => unknown): Promise<T[]> {
  const seen: T[] = [];
  const take = (message: unknown): void => {
    seen.push(message as T);
  };
  subscribe(name, take);
  try {
    await work();
  } finally {
    unsubscribe(name, take);
  }
  return seen;
}

/** How often something was handed to the channel during `work`, with nobody there to hear it. */
export async function toldNobody(channel: Channel, work: () => unknown): Promise<number> {
  if (channel.hasSubscribers) throw new Error('somebody listens');
  let count = 0;
  const own = channel as { publish?: (message: unknown) => void };
  own.publish = () => {
    count++;
  };
  try {
    await work();
  } finally {
    delete own.publish;
  }
  return count;
}
