// A chat completion as npm's `openai` reads it: each chunk as a line of JSON, then the whole.
import OpenAI from "openai";

const { client: settings, params } = JSON.parse(process.argv[2]);
const tell = (said) => console.log(JSON.stringify(said));
const client = new OpenAI({ apiKey: "any", maxRetries: 0, ...settings });
try {
  const stream = client.chat.completions.stream(params);
  for await (const chunk of stream) tell({ chunk });
  tell({ completion: await stream.finalChatCompletion() });
} catch (error) {
  const { constructor, status, code, message, headers } = error;
  const retryAfter = headers?.get("retry-after");
  tell({ error: { class: constructor.name, status, code, message, retryAfter } });
}
