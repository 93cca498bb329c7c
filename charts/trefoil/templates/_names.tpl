{{/* The image of a component: (dict "root" $ "image" .Values.image). A digest wins over a tag. */}}
{{- define "trefoil.image" -}}
{{- $global := .root.Values.global.image -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $global.registry) .image.repository -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (.image.tag | default $global.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* Labels of every object: (dict "root" $ "component" NAME). */}}
{{- define "trefoil.labels" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/part-of: trefoil
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: trefoil-{{ .root.Chart.Version }}
{{- end -}}

{{- define "trefoil.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What Prometheus is told on pods: (dict "port" 15020 "more" .Values.podAnnotations). */}}
{{- define "trefoil.podAnnotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The token by which a component is known to the authority: of an audience of its own, so that the API server's is never shown to anybody. */}}
{{- define "trefoil.tokenVolumes" -}}
- name: token
  projected: {sources: [{serviceAccountToken: {audience: trefoil-ca, path: token, expirationSeconds: 3600}}]}
- name: root
  configMap: {name: trefoil-ca-root}
{{- end -}}

{{/* A pod that has no privilege at all, as Pod Security's `restricted` asks. */}}
{{- define "trefoil.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
{{- define "trefoil.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 15000
runAsGroup: 15000
seccompProfile: {type: RuntimeDefault}
{{- end -}}
