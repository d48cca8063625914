// A plugin in JavaScript, of the world in plugin.wit. `tests/guests/build OUT plugins` builds it.

export function reverse(bytes) {
  return bytes.reverse();
}

export function greet(name) {
  // How a function says `err`.
  if (!name) throw 'no name';
  return `Hello, ${name}!`;
}
