/**
 * Inside the embedded host: runs the vitest groups that its arguments name, with the working folder that it was given.
 * Started by kvm.mjs; where the counts go is in the environment.
 */
import process from 'node:process';
import { command, vitestArguments } from './run.mjs';

for (const project of process.argv.slice(2)) {
  const { status } = await command(process.execPath, vitestArguments(project), { limitS: 3600 });
  if (status !== 0) process.exit(status);
}
