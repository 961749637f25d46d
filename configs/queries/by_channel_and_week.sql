-- Share of each sentiment by channel and week of publication
SELECT
  coalesce(v.channel, v.channel_id) AS channel,
  date_trunc('week', v.published_at)::DATE AS week,
  count(DISTINCT l.video_id) AS videos,
  count(*) AS segments,
  avg((l.sentiment = 'negative')::INT) AS negative,
  avg((l.sentiment = 'neutral')::INT) AS neutral,
  avg((l.sentiment = 'positive')::INT) AS positive,
  avg((l.sentiment = 'positive')::INT - (l.sentiment = 'negative')::INT) AS net,
  mode(l.emotion) FILTER (l.emotion <> 'neutral') AS commonest_emotion
FROM labels AS l
JOIN videos AS v USING (video_id)
GROUP BY ALL
ORDER BY channel, week
