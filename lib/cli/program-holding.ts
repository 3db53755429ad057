/** Options of the commands that hold a machine, run and restore: a process of its own for it, and what fences that in. */
import { type Command, Option } from 'commander';
import { gathered } from './gathered.js';

export function addHoldingOptions(command: Command): Command {
  return (
    command
      .option(
        '-d, --detach',
        'in a process of its own, without this terminal; prints the name, and waits until it runs',
      )
      .option(
        '--allow-path <path>',
        'with -d: a file or folder that its process may change beside what the machine stands on and the working folder, such as ' +
          'where snapshots go; may come more than once',
        gathered,
        [] as readonly string[],
      )
      .option('--no-fence', 'with -d: its process may do whatever you may')
      // Of this command's own processes.
      .addOption(new Option('--holder').hideHelp())
      .addOption(new Option('--control <json>').hideHelp())
  );
}
