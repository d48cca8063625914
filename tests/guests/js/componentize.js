// componentize.js WORLD FILE: makes a component of WORLD.js.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [world, file] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: `${world}.js`,
  witPath: 'wit',
  worldName: world,
  disableFeatures: world === 'service' ? [] : ['http', 'fetch-event'],
});
await writeFile(file, component);
