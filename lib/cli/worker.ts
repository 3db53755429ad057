/**
 * The command's process inside the embedded host: loads what a run needs, then waits for the job. Loading takes
 * seconds there, so it is done ahead of the job, all of it.
 */
import { serveCommand } from '../host/index.js';
import { runMain } from './main-command.js';
import { innerWorlds } from './real-world.js';
import './run-command.js';
import '../machine/index.js';

await serveCommand((argv, io) => runMain(argv, io, innerWorlds));
