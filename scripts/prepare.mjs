/**
 * npm's prepare hook, in a checkout: builds dist/ from lib/, and leaves the stamp that lets `npm run setup` skip it.
 */
import { buildLibrary } from './lib/build.mjs';

const { error } = await buildLibrary();
if (error !== undefined) {
  console.error(error);
  process.exit(1);
}
