<?php
// Ask the fake with PHP's curl extension alone: `lmdeck fake examples/fake/scenario.toml`, then `php ask.php`.
$base = getenv('OPENAI_BASE_URL') ?: 'http://127.0.0.1:1234/v1';
$question = ['model' => 'qwen2.5-7b-instruct', 'messages' => [['role' => 'user', 'content' => 'Say hello.']]];
$curl = curl_init("$base/chat/completions");
curl_setopt_array($curl, [
    CURLOPT_POSTFIELDS => json_encode($question),
    CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_FAILONERROR => true,
]);
$body = curl_exec($curl);
if ($body === false) {
    fwrite(STDERR, curl_error($curl) . PHP_EOL);
    exit(1);
}
echo json_decode($body, true)['choices'][0]['message']['content'], PHP_EOL;
