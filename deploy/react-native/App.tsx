/** One screen: opens the bundle, proves it on this device, and answers. */
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-react-native";
import { useEffect, useState } from "react";
import { Button, ScrollView, StyleSheet, Text, TextInput } from "react-native";

import { locate, read } from "./files";
import { type Bundle, openBundle } from "./js/bundle.mjs";

export default function App() {
  const [bundle, setBundle] = useState<Bundle | null>(null);
  const [verdict, setVerdict] = useState("Loading the model …");
  const [text, setText] = useState("");
  const [second, setSecond] = useState("");
  const [result, setResult] = useState("");

  useEffect(() => {
    open()
      .then(({ opened, said }) => {
        setBundle(opened);
        setVerdict(said);
      })
      .catch((error: Error) => setVerdict(error.message));
  }, []);

  const ask = () => {
    if (bundle) answer(bundle, text, second).then(setResult, (error: Error) => setResult(error.message));
  };
  return (
    <ScrollView contentContainerStyle={styles.page}>
      <Text style={styles.text}>{verdict}</Text>
      <TextInput style={styles.field} multiline placeholder="Text, or question" onChangeText={setText} />
      <TextInput
        style={styles.field}
        multiline
        placeholder="Second text, context, or choices, one a line"
        onChangeText={setSecond}
      />
      <Button title="Answer" disabled={!bundle || !text} onPress={ask} />
      <Text style={styles.text}>{result}</Text>
    </ScrollView>
  );
}

async function open(): Promise<{ opened: Bundle; said: string }> {
  const opened = await openBundle({ read, locate, ort, Tokenizer });
  const { passed, examples, largestDifference, tolerance, problems } = await opened.check();
  const difference = `largest difference ${largestDifference.toPrecision(2)}, allowed are ${tolerance}`;
  const lines = problems.map(({ number, what, message }) => `Example ${number} ${what}: ${message}`);
  const good = `${examples} golden examples answered as published (${difference})`;
  const bad = [`${problems.length} problems (${difference})`, ...lines].join("\n");
  return { opened, said: passed ? good : bad };
}

async function answer(bundle: Bundle, text: string, second: string): Promise<string> {
  const isChoice = bundle.manifest.task === "multiple-choice";
  const choices = isChoice ? second.split("\n").filter((line) => line.trim()) : null;
  const texts = { text, pair: isChoice ? null : second || null, choices };
  const said = await bundle.predict(texts);
  const scores = (said.scores ?? []).map((one) => `${one.label}  ${(100 * one.probability).toFixed(1)} %`);
  const words = (said.words ?? []).map((word) => `${word.text}  ${word.tag}`);
  const took = `${(await bundle.time(texts)).toFixed(1)} ms (median of 20)`;
  return [said.label, ...scores, ...words, took].join("\n");
}

const styles = StyleSheet.create({
  page: { padding: 24, paddingTop: 64, gap: 16 },
  field: { borderWidth: 1, borderColor: "#9a9fa6", borderRadius: 8, padding: 12, fontSize: 16 },
  text: { fontSize: 16, lineHeight: 24 },
});
