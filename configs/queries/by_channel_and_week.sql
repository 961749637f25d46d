-- Share of each sentiment by channel and week of publication
WITH
  counted AS (  -- by video first: what follows has thousands of rows, not millions
    SELECT video_id, sentiment, emotion, count(*) AS n FROM labels GROUP BY ALL
  ),
  placed AS (
    SELECT
      coalesce(v.channel, v.channel_id) AS channel,
      date_trunc('week', v.published_at)::DATE AS week,
      c.*
    FROM counted AS c
    JOIN videos AS v USING (video_id)
  ),
  felt AS (
    SELECT channel, week, emotion, sum(n) AS n
    FROM placed
    WHERE emotion <> 'neutral'
    GROUP BY ALL
  ),
  commonest AS (
    SELECT channel, week, arg_max(emotion, (n, emotion)) AS emotion FROM felt GROUP BY ALL
  ),
  shares AS (
    SELECT
      channel,
      week,
      count(DISTINCT video_id) AS videos,
      sum(n)::BIGINT AS segments,
      coalesce(sum(n) FILTER (sentiment = 'negative'), 0) AS negative,
      coalesce(sum(n) FILTER (sentiment = 'neutral'), 0) AS neutral,
      coalesce(sum(n) FILTER (sentiment = 'positive'), 0) AS positive,
      sum(n) FILTER (sentiment IS NOT NULL) AS labelled
    FROM placed
    GROUP BY ALL
  )
SELECT
  s.channel,
  s.week,
  s.videos,
  s.segments,
  s.negative / s.labelled AS negative,
  s.neutral / s.labelled AS neutral,
  s.positive / s.labelled AS positive,
  (s.positive - s.negative) / s.labelled AS net,
  c.emotion AS commonest_emotion
FROM shares AS s
LEFT JOIN commonest AS c
  ON c.channel IS NOT DISTINCT FROM s.channel AND c.week IS NOT DISTINCT FROM s.week
ORDER BY s.channel, s.week
