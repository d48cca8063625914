// A guest in JavaScript that runs to its end: sums a column of a CSV file into a JSON file.
//
//   tool IN COLUMN OUT   both paths from /; fails where there is no such file or column
import { getArguments, getEnvironment } from 'wasi:cli/environment@0.2.10';
import { getDirectories } from 'wasi:filesystem/preopens@0.2.10';

function open(path, flags, access) {
  const [root] = getDirectories().find(([, name]) => name === '/');
  return root.openAt({ symlinkFollow: true }, path.replace(/^\/+/, ''), flags, access);
}

function read(path) {
  const file = open(path, {}, { read: true });
  const parts = [];
  for (let at = 0n, end = false; !end; ) {
    const [bytes, last] = file.read(65536n, at);
    parts.push(new TextDecoder().decode(bytes));
    at += BigInt(bytes.length);
    end = last || bytes.length === 0;
  }
  return parts.join('');
}

function write(path, text) {
  const file = open(path, { create: true, truncate: true }, { write: true });
  file.write(new TextEncoder().encode(text), 0n);
}

export const run = {
  run() {
    const [, from, column, to] = getArguments();
    const greeting = Object.fromEntries(getEnvironment()).GREETING ?? 'hello';
    console.log(`${greeting} from JavaScript`);
    try {
      const [header, ...rows] = read(from).trim().split('\n').map((line) => line.split(','));
      const index = header.indexOf(column);
      if (index < 0) throw new Error(`no column ${column}`);
      const sum = rows.reduce((total, row) => total + Number(row[index]), 0);
      write(to, `${JSON.stringify({ column, rows: rows.length, sum })}\n`);
    } catch (error) {
      console.error(`${from}: ${error.payload ?? error.message}`);
      // How a component says that it failed.
      throw undefined;
    }
  },
};
