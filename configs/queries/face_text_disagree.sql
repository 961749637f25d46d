-- Where face and text disagree most: the distance of their probabilities, 0 same to 1 opposite
-- $limit = 20: rows at most
WITH
  furthest AS (
    SELECT * FROM labels ORDER BY face_text_distance DESC NULLS LAST, segment_id LIMIT $limit::BIGINT
  )
SELECT
  face_text_distance AS distance,
  face_vote,
  text_vote,
  sentiment,
  origin,
  text,
  title,
  printf('%d:%02d', start_ms // 60000, start_ms // 1000 % 60) AS at,
  segment_id
FROM furthest
WHERE face_text_distance IS NOT NULL  -- not before: Arrow would copy every row that is left
ORDER BY distance DESC, segment_id
