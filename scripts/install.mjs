/**
 * npm's install hook: nothing to do where the addon that came along runs, else it is compiled where the compilers already are.
 * Never installs a system package, never asks for privileges, never fails an installation: what is lacking here is what
 * `npm run setup` cures, or explains.
 */
import { buildAddon, missingForAddon } from './lib/build.mjs';
import { prebuiltMisfit } from './lib/prebuilt.mjs';

const misfit = await prebuiltMisfit();
if (misfit !== undefined) {
  const lacks = missingForAddon();
  if (lacks.length > 0) {
    console.log(`vivarium: the addon is not built (${lacks.join(', ')} missing); run: npm run setup`);
    console.log(`vivarium: and of the one that came along: ${misfit}`);
  } else {
    const { error } = await buildAddon();
    if (error !== undefined) console.log(`vivarium: the addon is not built; run: npm run setup\n${error}`);
  }
}
