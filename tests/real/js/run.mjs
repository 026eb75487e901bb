// Runs one case of one client: `node run.mjs CLIENT CASE ADDRESS KEY`. Started by test_npm.py in the folder where the
// packages are. A case that does not hold throws.
const [name, chosen, address, key] = process.argv.slice(2);
const { cases } = await import(`./${name}.mjs`);
await cases(address, key)[chosen]();
