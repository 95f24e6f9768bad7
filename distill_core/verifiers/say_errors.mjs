// In node, an error is told as one last line of stderr: its own trace shows a line of minified source.
process.on("uncaughtException", (error) => {
  console.error(`${error.name}: ${error.message}`.split("\n")[0]);
  process.exit(1);
});
