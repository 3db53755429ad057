/**
 * npm's install hook: builds the addon where the compilers already are. Never installs a system package, never asks for
 * privileges, never fails an installation: what is lacking here is what `npm run setup` cures, or explains.
 */
import { buildAddon, missingForAddon } from './lib/build.mjs';

const lacks = missingForAddon();
if (lacks.length > 0) {
  console.log(`vivarium: the addon is not built (${lacks.join(', ')} missing); run: npm run setup`);
} else {
  const { error } = await buildAddon();
  if (error !== undefined) console.log(`vivarium: the addon is not built; run: npm run setup\n${error}`);
}
