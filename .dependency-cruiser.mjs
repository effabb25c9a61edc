// Which room may import from which: src/layers.json, from the ground up. Type imports count.
import { readFileSync } from 'node:fs';

const rooms = JSON.parse(readFileSync(new URL('src/layers.json', import.meta.url), 'utf8'));
const pattern = ({ room }) => (room.endsWith('.ts') ? `^${room}$` : `^${room}/`);
const folders = rooms.map(pattern);
const everyRoom = folders.join('|');

/** A room imports from those below it and from itself. */
const upward = rooms.map((room, i) => ({
  name: `${room.room} imports from above`,
  severity: 'error',
  from: { path: pattern(room) },
  to: { path: folders.slice(i + 1).join('|') || '^$' },
}));

const homeless = {
  name: 'a file without a room',
  severity: 'error',
  from: { path: '^(src|web|bench|kernels)/', pathNot: everyRoom },
  to: {},
};

const cycle = { name: 'a cycle', severity: 'error', from: {}, to: { circular: true } };

const browser = {
  name: 'a Node module in what runs in browsers',
  severity: 'error',
  from: {
    path: everyRoom,
    pathNot: rooms.flatMap(({ node = [] }) => node.map((room) => pattern({ room }))).join('|'),
  },
  to: { dependencyTypes: ['core'] },
};

export default {
  forbidden: [...upward, homeless, cycle, browser],
  options: {
    parser: 'swc',
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|docs)/' },
    includeOnly: { path: '^(src|web|bench|kernels)/|^(node:)?[a-z_]+$' },
  },
};
