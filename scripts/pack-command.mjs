/** The rest of `npm run build:ts`: the dashboard's page, and the command in a few files. */
import { buildPage } from './lib/build-page.mjs';
import { packCommand } from './lib/pack-command.mjs';

await buildPage();
await packCommand();
