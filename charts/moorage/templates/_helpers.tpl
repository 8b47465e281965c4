{{- define "moorage.selector" -}}
app.kubernetes.io/name: moorage-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moorage.labels" -}}
{{ include "moorage.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: moorage
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "moorage.gatewaySelector" -}}
app.kubernetes.io/name: moorage-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moorage.gatewayLabels" -}}
{{ include "moorage.gatewaySelector" . }}
app.kubernetes.io/component: gateway
app.kubernetes.io/part-of: moorage
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* What the gateway may do in a namespace that it serves: see models and where their pods are. */ -}}
{{- define "moorage.gatewayRules" -}}
- apiGroups: [moorage.dev]
  resources: [inferencemodels, modelaliases]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}

{{- /* The reference of an image, by [its values, the version that an empty tag means]. */ -}}
{{- define "moorage.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end }}

{{- /* A model must never take the operator's place on a full cluster. */ -}}
{{- define "moorage.operatorPriority" -}}
{{- if .Values.operator.priorityClassName -}}
{{ .Values.operator.priorityClassName }}
{{- else if .Values.priorityClasses.create -}}
{{ .Values.priorityClasses.prefix }}operator
{{- end -}}
{{- end }}

{{- /* Whether pods name their user and groups: not where the cluster assigns them, as OpenShift does. */ -}}
{{- define "moorage.setUser" -}}
{{- $adapt := (((.Values.global).compatibility).openshift).adaptSecurityContext | default "auto" -}}
{{- $openshift := .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
{{- not (or (eq $adapt "force") (and (eq $adapt "auto") $openshift)) -}}
{{- end }}

{{- /* The securityContext of the pods of operator and gateway. */ -}}
{{- define "moorage.podSecurityContext" -}}
runAsNonRoot: true
{{- if eq (include "moorage.setUser" .) "true" }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* The namespaces to serve, as JSON; empty when all of them are. */ -}}
{{- define "moorage.namespaces" -}}
{{- if .Values.clusterWide -}}
[]
{{- else -}}
{{ .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- end -}}
{{- end }}

{{- /* What the operator may do in a namespace that it serves: nothing with Secrets, no exec, no roles. */ -}}
{{- define "moorage.rules" -}}
- apiGroups: [moorage.dev]
  resources: [inferencemodels]
  verbs: [get, list, watch]
- apiGroups: [moorage.dev]
  resources: [inferencemodels/status]
  verbs: [patch]
# Setting blockOwnerDeletion on a child asks for this verb where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [moorage.dev]
  resources: [inferencemodels/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# To tell the pods of a Deployment of ours from those that only bear its labels.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
# Deleted: pods in phase Failed, which nothing else would delete for long.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
# To see that the rules have changed by which the API server refused a model's pods.
- apiGroups: [""]
  resources: [resourcequotas, limitranges]
  verbs: [list]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
# Read: who preempted whom, and why a volume of a pod is missing, which only Events tell. Written: Events on InferenceModels.
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch, create]
{{- end }}

{{- /* What an admission policy looks at: InferenceModels when they are made and when they are changed. */ -}}
{{- define "moorage.onModels" -}}
resourceRules:
  - apiGroups: [moorage.dev]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE]
    resources: [inferencemodels]
{{- end }}
