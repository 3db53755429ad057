/** What scripts with a guest's agent share: its host end, commands, and how far the guest's clock is from this one. */
import { Writable } from 'node:stream';
import { AgentClient } from '#lib/agent/client.js';

/** For whoever waits in vain. */
export const note = (text) => process.stderr.write(`${Math.round(performance.now())} ms: ${text}\n`);

/** Shell words that wait. */
export const until = (condition) => `until ${condition}; do usleep 20000; done`;

/** The host end of a guest's agent, which ends with the guest. */
export function connect(vm) {
  const client = new AgentClient(vm.channel);
  void vm.wait().then((end) => {
    const { reason, detail = '' } = end;
    note(`it ended: ${reason} ${detail}`);
    client.close(new Error(`the guest ended: ${reason} ${detail}`));
  });
  return client;
}

/** A command's output. @throws Error with it when the command fails. */
export async function run(client, command) {
  const pieces = [];
  const taking = () => new Writable({ write: (bytes, _, done) => done(void pieces.push(bytes)) });
  const { status } = await client.run({ argv: ['sh', '-c', command], stdout: taking(), stderr: taking() });
  const text = Buffer.concat(pieces).toString().trimEnd();
  if (status.code !== 0) throw new Error(`'${command}' ended with ${JSON.stringify(status)}:\n${text}`);
  return text;
}

/** How far the guest's clock is behind this host's at least, and ahead of it at least, whatever the question took; in whole seconds. */
export async function compareClocks(ask) {
  const before = Math.floor(Date.now() / 1000);
  const guest = Number(await ask());
  return { behindS: before - guest, aheadS: guest - Math.floor(Date.now() / 1000) };
}

export async function ended(vm, ask) {
  ask();
  return (await vm.wait()).reason;
}
