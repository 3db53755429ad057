/** What the tests of `run` share: the command against a fake world, and waiting for what follows by itself. */
import { FakeIo, type FakeIoOptions, type FakeWorld } from './fake-world.js';
import { runCommand } from './run-command.js';
import { parseRunOptions, type RawRunOptions } from './run-options.js';

export function run(
  world: FakeWorld,
  raw: RawRunOptions = {},
  more: FakeIoOptions & { command?: string[] } = {},
): { io: FakeIo; status: Promise<number> } {
  const io = new FakeIo(more);
  return { io, status: runCommand(parseRunOptions(raw, more.command), io, world) };
}

export const turns = async (count = 20): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
};

/** Waits for something that follows by itself. */
export const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
};
