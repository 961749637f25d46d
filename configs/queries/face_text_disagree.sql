-- Where face and text disagree most: the distance of their probabilities, 0 same to 1 opposite
-- $limit = 20: rows at most
WITH
  other AS (  -- models that a video's current run does not use: few, if any, so quick to leave out
    SELECT DISTINCT video_id, backend FROM predictions WHERE modality IN ('face', 'text')
    EXCEPT SELECT c.video_id, unnest(r.backends) FROM current_runs AS c JOIN runs AS r USING (run_id)
  ),
  face AS (  -- and text apart: what is read twice would be held whole
    SELECT
      segment_id,
      sentiment_probs[1] AS negative,
      sentiment_probs[2] AS neutral,
      sentiment_probs[3] AS positive
    FROM predictions
    ANTI JOIN other USING (video_id, backend)
    WHERE modality = 'face' AND sentiment_probs IS NOT NULL
  ),
  text AS (
    SELECT
      segment_id,
      sentiment_probs[1] AS negative,
      sentiment_probs[2] AS neutral,
      sentiment_probs[3] AS positive
    FROM predictions
    ANTI JOIN other USING (video_id, backend)
    WHERE modality = 'text' AND sentiment_probs IS NOT NULL
  ),
  furthest AS (  -- before the labels are joined, which are wide
    SELECT
      segment_id,
      (
        abs(f.negative - t.negative) + abs(f.neutral - t.neutral) + abs(f.positive - t.positive)
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
