-- Where face and text disagree most: the distance of their probabilities, 0 same to 1 opposite
-- $limit = 20: rows at most
WITH votes AS (
  SELECT l.segment_id, p.modality, p.sentiment_probs AS probs
  FROM labels AS l
  JOIN predictions AS p ON p.segment_id = l.segment_id AND list_contains(l.backends, p.backend)
  WHERE p.sentiment_probs IS NOT NULL
)
SELECT
  (
    abs(f.probs[1] - t.probs[1]) + abs(f.probs[2] - t.probs[2]) + abs(f.probs[3] - t.probs[3])
  ) / 2 AS distance,
  l.face_vote,
  l.text_vote,
  l.sentiment,
  l.origin,
  l.text,
  l.title,
  printf('%d:%02d', l.start_ms // 60000, l.start_ms // 1000 % 60) AS at,
  l.segment_id
FROM labels AS l
JOIN votes AS f ON f.segment_id = l.segment_id AND f.modality = 'face'
JOIN votes AS t ON t.segment_id = l.segment_id AND t.modality = 'text'
ORDER BY distance DESC, l.segment_id
LIMIT $limit::BIGINT
