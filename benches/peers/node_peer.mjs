// What the peers in Node.js share: what is asked of them, the answer, a clock.
export const spec = JSON.parse(process.argv[2]);
export const tell = (answer) => console.log(JSON.stringify(answer));
export const microseconds = () => Math.round(performance.now() * 1000);
