// Inputs of a row, and the loop over the rows, in node and in a page.

/** Answer a job's rows one at a time; return the shapes of each one's outputs, and their numbers.
 *
 * @param job as `job.json` has it, with `dtype` of the inputs.
 * @param run from tensors by input name to a promise of tensors by output name.
 * @param Tensor the runtime's own.
 * @param names of the model's inputs.
 */
export async function answerRows(job, run, Tensor, names) {
  const [rows, numbers, start] = [[], [], performance.now()];
  for (const row of job.rows) {
    const outputs = await run(inputsOf(row, names, Tensor, job.dtype));
    const shapes = {};
    for (const [name, output] of Object.entries(outputs)) {
      if (!output?.dims) continue; // transformers.js names outputs that a model has not
      shapes[name] = [...output.dims];
      numbers.push(new Uint8Array(Float32Array.from(output.data, Number).buffer));
    }
    rows.push(shapes);
    if (performance.now() - start > 1000 * job.seconds) break;
  }
  return { rows, numbers };
}

/** Return the tensors that a model reads of a row, by input name. */
export function inputsOf(row, names, Tensor, dtype) {
  return Object.fromEntries(names.map((name) => [name, tensor(row[name])]));

  function tensor(values) {
    const several = Array.isArray(values[0]); // the choices of one text
    const shape = several ? [1, values.length, values[0].length] : [1, values.length];
    return new Tensor(dtype, ARRAYS[dtype](values.flat()), shape);
  }
}

const ARRAYS = {
  int64: (values) => BigInt64Array.from(values, BigInt),
  int32: (values) => Int32Array.from(values),
};
