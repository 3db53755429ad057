/** The second half of `npm run build:ts`. */
import { packCommand } from './lib/pack-command.mjs';

await packCommand();
