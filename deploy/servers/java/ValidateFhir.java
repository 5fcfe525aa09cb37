import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.context.support.IValidationSupport.IssueSeverity;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.SingleValidationMessage;
import ca.uhn.fhir.validation.ValidationOptions;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.PrePopulatedValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.UnknownCodeSystemWarningValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.hl7.fhir.r4.model.CodeSystem;

/**
 * HL7's instance validator on FHIR R4 JSON, offline.
 *
 * <p>Arguments: [--load PROFILE.json]... FILE... ; an .ndjson file is read line by line. Standard output is one
 * JSON object a message ({file, line, severity, location, message}) and at the end {resources}. Codes of LOINC
 * and SNOMED CT are not shipped, so they give warnings and never errors; profiles that are not loaded likewise.
 */
public class ValidateFhir {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";

    /**
     * The code system as R4 shipped it in 2019, and the one code that we write and that HL7 Terminology has added
     * since (version 4.0.0 of the code system, to which HL7's AI Transparency guide binds).
     */
    private static CodeSystem observationValue(IValidationSupport shipped) {
        CodeSystem values = ((CodeSystem) shipped.fetchCodeSystem(OBSERVATION_VALUE)).copy();
        values.addConcept().setCode("AIAST").setDisplay("Artificial Intelligence asserted");
        return values;
    }

    public static void main(String[] args) throws Exception {
        FhirContext context = FhirContext.forR4();
        DefaultProfileValidationSupport shipped = new DefaultProfileValidationSupport(context);
        PrePopulatedValidationSupport own = new PrePopulatedValidationSupport(context);
        own.addCodeSystem(observationValue(shipped));
        List<Path> files = new java.util.ArrayList<>();
        for (int i = 0; i < args.length; i++) {
            if (args[i].equals("--load")) {
                own.addResource(context.newJsonParser().parseResource(Files.readString(Path.of(args[++i]))));
            } else {
                files.add(Path.of(args[i]));
            }
        }
        UnknownCodeSystemWarningValidationSupport unknown = new UnknownCodeSystemWarningValidationSupport(context);
        unknown.setNonExistentCodeSystemSeverity(IssueSeverity.WARNING);
        FhirInstanceValidator instance = new FhirInstanceValidator(new ValidationSupportChain(
                own,
                shipped,
                new SnapshotGeneratingValidationSupport(context),
                new CommonCodeSystemsTerminologyService(context),
                new InMemoryTerminologyServerValidationSupport(context),
                unknown));
        instance.setAnyExtensionsAllowed(true);
        instance.setErrorForUnknownProfiles(false);
        FhirValidator validator = context.newValidator().registerValidatorModule(instance);
        int resources = 0;
        for (Path file : files) {
            List<String> texts = file.toString().endsWith(".ndjson")
                    ? Files.readAllLines(file)
                    : List.of(Files.readString(file));
            for (int line = 1; line <= texts.size(); line++) {
                if (texts.get(line - 1).isBlank()) continue;
                resources++;
                ValidationOptions options = new ValidationOptions();
                for (SingleValidationMessage found :
                        validator.validateWithResult(texts.get(line - 1), options).getMessages()) {
                    Map<String, Object> message = new LinkedHashMap<>();
                    message.put("file", file.toString());
                    message.put("line", line);
                    message.put("severity", found.getSeverity().getCode());
                    message.put("location", found.getLocationString());
                    message.put("message", found.getMessage());
                    System.out.println(JSON.writeValueAsString(message));
                }
            }
        }
        System.out.println(JSON.writeValueAsString(Map.of("resources", resources)));
    }
}
