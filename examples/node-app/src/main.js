// Adds up its arguments.
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
module.exports = { sum };
if (require.main === module) {
  console.log(sum(process.argv.slice(2).map(Number).filter((it) => !Number.isNaN(it))));
}
