-- Where face and text disagree most: the distance of their probabilities, 0 same to 1 opposite
-- $limit = 20: rows at most
WITH
  current AS (
    SELECT l.video_id, r.backends
    FROM (SELECT DISTINCT video_id, run_id FROM labels) AS l
    JOIN runs AS r USING (run_id)
  ),
  face AS (
    SELECT p.segment_id, p.sentiment_probs AS probs
    FROM predictions AS p
    JOIN current AS c ON c.video_id = p.video_id AND list_contains(c.backends, p.backend)
    WHERE p.modality = 'face' AND p.sentiment_probs IS NOT NULL
  ),
  text AS (
    SELECT p.segment_id, p.sentiment_probs AS probs
    FROM predictions AS p
    JOIN current AS c ON c.video_id = p.video_id AND list_contains(c.backends, p.backend)
    WHERE p.modality = 'text' AND p.sentiment_probs IS NOT NULL
  ),
  furthest AS (  -- before the labels are joined, which are wide
    SELECT
      segment_id,
      (
        abs(f.probs[1] - t.probs[1]) + abs(f.probs[2] - t.probs[2]) + abs(f.probs[3] - t.probs[3])
      ) / 2 AS distance
    FROM face AS f
    JOIN text AS t USING (segment_id)
    ORDER BY distance DESC, segment_id
    LIMIT $limit::BIGINT
  )
SELECT
  d.distance,
  l.face_vote,
  l.text_vote,
  l.sentiment,
  l.origin,
  l.text,
  l.title,
  printf('%d:%02d', l.start_ms // 60000, l.start_ms // 1000 % 60) AS at,
  l.segment_id
FROM labels AS l
JOIN furthest AS d USING (segment_id)
ORDER BY d.distance DESC, l.segment_id
