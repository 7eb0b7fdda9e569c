// A UI message stream as npm's `ai` reads it: each part and each state of the message as a line of
// JSON, in which order they come, then how it ended.
const { api, text, ai = "ai-6" } = JSON.parse(process.argv[2]);
const { DefaultChatTransport, readUIMessageStream } = await import(ai);
const tell = (said) => console.log(JSON.stringify(said));
const asked = { id: "1", role: "user", parts: [{ type: "text", text }] };
try {
  const transport = new DefaultChatTransport({ api });
  const stream = await transport.sendMessages({
    chatId: "chat",
    messages: [asked],
    trigger: "submit-message",
  });
  const told = stream.pipeThrough(
    new TransformStream({
      transform(part, controller) {
        tell({ part });
        controller.enqueue(part);
      },
    }),
  );
  let message;
  for await (message of readUIMessageStream({ stream: told, terminateOnError: true })) tell({ message });
  tell({ end: message });
} catch (error) {
  tell({ error: { class: error.constructor.name, message: error.message } });
}
