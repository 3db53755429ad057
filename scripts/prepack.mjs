/**
 * npm's prepack hook: compiles the addon, the library and the guest's agent, and lays what the package brings along compiled into
 * prebuilds/. With `--remove`, as postpack: takes that away again. Fails rather than letting a package without it be made.
 */
import { buildAddon, buildLibrary } from './lib/build.mjs';
import { makePrebuilt, removePrebuilt } from './lib/prebuilt.mjs';

if (process.argv.includes('--remove')) {
  removePrebuilt();
} else {
  for (const build of [buildAddon, buildLibrary]) {
    const { error } = await build();
    if (error !== undefined) throw new Error(error);
  }
  const { guestAgent } = await import('../dist/images/agent.js');
  await makePrebuilt(await guestAgent());
}
