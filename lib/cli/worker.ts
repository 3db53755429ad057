/**
 * The command's process inside the embedded host: loads what a run needs, then waits for the job. Loading takes
 * seconds there, so it is done ahead of the job, all of it. Nothing is imported statically: once packed, no other file
 * of the command may need this one, which runs when it is loaded.
 */
const [{ serveCommand }, { runMain }, { innerWorlds }] = await Promise.all([
  import('../host/index.js'),
  import('./main-command.js'),
  import('./real-world.js'),
  import('./run-command.js'),
  import('../machine/index.js'),
]);

await serveCommand((argv, io) => runMain(argv, io, innerWorlds));

export {};
