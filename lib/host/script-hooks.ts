/**
 * Preloaded before a user's script inside the embedded host: makes `import 'vivarium'` mean the build that started it,
 * wherever the script lies. Inside only; it must not load anything of vivarium itself.
 */
import { register } from 'node:module';

const entry = new URL('../index.js', import.meta.url).href;
const hooks = `export async function resolve(specifier, context, next) {
  return specifier === 'vivarium' ? { url: ${JSON.stringify(entry)}, shortCircuit: true } : next(specifier, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
